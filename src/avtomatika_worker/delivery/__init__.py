"""Delivers results and events to their orchestrators without losing any."""
