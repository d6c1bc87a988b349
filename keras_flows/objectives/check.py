def check_jvp():
    pass
