"""Passbook (통장): a ledger of prepaid balances and an audit log of everything that touched them."""

__version__ = "0.1.0"
