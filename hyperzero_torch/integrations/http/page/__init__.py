"""The live page: HTML made on the server, which works without JavaScript."""
