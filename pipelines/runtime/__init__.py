"""The machines and processes a run works on: Ray's session, its losses, jobs, progress, notifications.

May import `storage`, `config` and `gan_core`. What enters are a configuration's resources; what leaves is a Ray that
has room for them, or a line that says what is missing. `installed` and `import_path` need the standard library alone.
"""
