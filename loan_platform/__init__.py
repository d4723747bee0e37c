"""From a lender's raw loan book to a served decision, and kept honest afterwards."""

__version__ = "0.1.0"
