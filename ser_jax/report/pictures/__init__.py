"""Pictures that only the report draws."""
