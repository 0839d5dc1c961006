-- One breaker. Returns view…, or nothing while it is closed.
if not is_open then return {} end
return { view() }
