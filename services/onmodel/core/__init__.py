"""What every part of OnModel shares: words, errors, pictures, files. Imports no other part of it."""
