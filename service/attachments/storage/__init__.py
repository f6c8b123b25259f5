"""Stores of files: a folder of this machine, or an S3 bucket."""
