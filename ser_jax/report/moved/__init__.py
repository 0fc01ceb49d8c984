"""What commands are called now."""
