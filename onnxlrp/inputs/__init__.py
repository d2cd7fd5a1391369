"""What is to be explained, how pictures are made of it, and for which class."""
