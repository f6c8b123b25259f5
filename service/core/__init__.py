"""What every package may use: settings, errors, logs, metrics and plain mechanisms."""
