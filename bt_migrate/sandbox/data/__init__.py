"""What a sandbox holds: objects, rows and their versions, files, and its clock."""
