"""HTTP without protocol: bodies, errors, who asks, caching, pages. Nothing here knows a rule of OpenID Connect."""
