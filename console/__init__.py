"""The command line, later the HTTP API and the web pages."""
