"""Many visits: what to do (recipe, plan), where it is kept (store, markers), and doing it (run)."""
