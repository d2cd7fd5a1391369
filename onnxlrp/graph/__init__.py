"""What a model is: read, brought to one spelling, and known about before it runs."""
