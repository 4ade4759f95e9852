"""What is wrong with this machine or with a service that runs, and what mends it.

Facts are gathered first (`look`), then every check is a pure function of them, one file a check (`checks`); a
finding is a `Symptom` with its evidence and its remedy. Changes nothing but what `mend` is asked to.
"""
