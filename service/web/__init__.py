"""The HTTP layer: bodies, errors, authentication, caching, pages. Nothing here knows a rule of OpenID Connect."""
