"""The tools for DBAs: parameters, columns, plans and costs of the statements."""
