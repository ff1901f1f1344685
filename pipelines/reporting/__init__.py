"""Pictures, the run's page and the paper's tables.

May import `runs` and `registry`, for what it shows. What enters are records and images; what leaves are PNG, HTML and
Markdown.
"""
