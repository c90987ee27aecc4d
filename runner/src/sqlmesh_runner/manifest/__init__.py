"""A project described as JSON, from its files alone."""
