"""What every part of BiVRec-TF agrees on: names and shapes that cross a wall, and its errors.

A package of its own, because `bivrec_tf` chooses a Keras for the whole process when it is imported,
and a program that only calls a model must not be made to. It imports nothing.
"""
