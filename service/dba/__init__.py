"""The tools of DBAs: what statements take, return, cost and plan."""
