"""The subcommands of `ovis`, one module each; tasks/cli.py calls them."""
