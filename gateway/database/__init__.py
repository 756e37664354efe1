"""The database of actors, operations and jobs: tables, connections, and what their failures mean."""
