"""How results look and how they are kept: tables, pictures, progress, files."""
