#!/usr/bin/env python
"""Django's command line for OpsConsole."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opsconsole.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError, connection

    if sys.argv[1:2] == ["demo"]:
        # It makes the key and the server that the settings ask for, so it runs without them.
        from opsconsole.management.commands.demo import Command

        return Command().run_from_argv(sys.argv)
    try:
        return execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        if "--traceback" in sys.argv:
            raise
        sys.exit(str(error))
    except OperationalError as error:
        if "--traceback" in sys.argv or connection.connection is not None:
            raise
        from opsconsole.doctor import unreachable

        sys.exit(unreachable(connection.settings_dict, error))


if __name__ == "__main__":
    main()
