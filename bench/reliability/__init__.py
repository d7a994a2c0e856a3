"""Questions about trust: false alarms, delays, crashes, hostile input, load."""
