"""Client, load test and development server for the exported model, and its deployment.

Importing this package imports nothing: the client needs neither TensorFlow nor a choice of Keras.
"""
