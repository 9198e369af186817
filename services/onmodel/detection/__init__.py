"""What is in a picture: characters, faces, shot type and attributes."""
