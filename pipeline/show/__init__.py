"""What a person looks at: the page, figures, contact sheets."""
