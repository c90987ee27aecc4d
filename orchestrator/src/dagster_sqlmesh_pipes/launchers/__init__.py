"""Where runners run: one file per kind of place, each with the SDK of its own."""
