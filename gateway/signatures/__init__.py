"""Documents that an installation signs with its own key: receipts of erasures, and heads of the audit log."""
