"""Order, schedule and triggers: what runs when.  The work itself is in tasks and ovis_model."""
