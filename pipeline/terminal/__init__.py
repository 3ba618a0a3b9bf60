"""What a command says while it runs and at its end."""
