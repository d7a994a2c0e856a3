"""A study on a simulated clock, and everything that goes wrong around it, from one seed.

faults        what goes wrong, and when: drawn from the seed
processes     processes that take turns, one I/O call at a time, and that can be killed
seams         the journal, the served file and the calls of a loop, with faults in them
study         the problem, the small model, and the warehouse with its readings
actors        a live loop, and an operator
invariants    what must hold after every step
run           one seed from its start to its end
shrink        the faults of a failing seed that it takes to fail
"""
