"""Accounts, their passwords, log-in sessions, API keys and tickets."""
