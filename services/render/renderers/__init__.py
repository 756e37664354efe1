"""One folder per renderer. A renderer never imports another renderer."""
