"""The auditor beside what it is to predict: the loss of accuracy when a foreign vector is added."""
