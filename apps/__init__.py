"""Other people's applications, signed in to this provider with their defaults and what their page in docs/apps says.

`make apps` runs them all and prints a table; the light ones run in `make test` too (`tests/apps`). Each module of this
package that has an `APP` is one application. An application is installed from its registry into `.apps`, once for each
lock, started on a port of the system's choice, and ended by its process id.
"""
