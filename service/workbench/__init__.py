"""The DBA's workbench over the statements: check, catalogue, plans, figures."""
