"""Whether addresses really answer, and if not, why: asked of this host, and of the router by the uplink."""
