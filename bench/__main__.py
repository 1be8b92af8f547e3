"""`python -m bench [flows [NAME…]|growth|install|record|workers [--record]|profile|rotation|status]`."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run what is asked for.

    Returns:
        The exit code: 2 for an unknown word.
    """
    match arguments:
        case []:
            from bench import ratios

            return ratios.main()
        case ["install"]:
            from bench import flows

            flows.install()
            return 0
        case ["record"]:
            from bench import newest

            return newest.main()
        case ["growth"]:
            from bench import growth

            return growth.main()
        case ["flows", *only]:
            from bench import flows

            return flows.main(",".join(only))
        case ["workers"] | ["workers", "--record"]:
            from bench import workers

            return workers.main(record=len(arguments) > 1)
        case ["profile"]:
            from bench import profile

            return profile.main()
        case ["rotation"]:
            from bench import rotation

            return rotation.main()
        case ["status"]:
            from bench import status

            return status.main()
    print(
        "usage: python -m bench [flows [NAME…]|growth|install|record|workers [--record]|profile|rotation|status]",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
