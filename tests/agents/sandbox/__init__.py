"""What the sandbox decides: plans, filters, deadlines, limits, refusals. No jail is started here."""
