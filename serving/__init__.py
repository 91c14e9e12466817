"""Client and development server for the exported model, and its deployment."""
