"""The routes of the API, each a function from a request to an answer."""
