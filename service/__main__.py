"""`python -m service` is `pylon-oidc`."""

from service.cli import main

if __name__ == "__main__":
    main()
