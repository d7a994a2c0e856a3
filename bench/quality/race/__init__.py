"""The race: every contender gets the same worlds, traffic, deltas and rule of recommendation.

contender   a contender decides who is served; its tuner keeps the journal and recommends
registry    the contenders by name
loop        one contender in one world, hour by hour
worlds      the worlds by name
run         many runs, one process each, into JSON lines
table       the JSON lines as Markdown tables and a figure
"""
