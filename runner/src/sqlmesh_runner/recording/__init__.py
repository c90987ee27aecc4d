"""What a run reports: SQLMesh's callbacks become events. Imports no SQLMesh."""
