"""How fast taskapi is, beside a FastAPI service of the same contract and the least that Python could do."""
