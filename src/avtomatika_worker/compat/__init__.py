"""Everything that exists only for code written for the official SDK, 1.0b13 to 1.0b20.

The rest of the package does not import it, except the modules at the paths where users look for these names:
``avtomatika_worker`` itself, ``.config``, ``.worker``, ``.types``, ``.task_files``, ``.logging``, ``.s3``, ``.typing``.
"""
