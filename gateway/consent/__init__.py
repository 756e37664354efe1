"""Consent records: who agreed to be dubbed, for what and until when; signatures of records, and the checks of a use."""
